-- Start an attempt of a job this worker has taken: the moment a job becomes `running`. The attempt's number is the
-- fencing token. Answers {outcome, …}: claimed | gone | parked | expired | urgent | gated
-- (reason, ms left or 0, queue, model, models it has left) | following | answered (by which job).
-- `nonce` names the request, so that it can be repeated when the answer was lost on its way.
-- Half-open circuits let one claim through, the probe.
-- ARGV: now, worker, id, nonce, expired problem, may yield ('1' lets more urgent jobs go first), yields lifetime,
--       probe lifetime (ms), cache key ('' for none), 'follow' and/or 'lead' others after that answer, time (ms) before
--       which an answer is not wanted, '1' to answer the request too.
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f, key = fields(id), job_key(id)
local function claimed(attempt)
  return {'claimed', attempt, redis.call('HGET', key, 'attempt_at'), f.batch,
    ARGV[12] == '1' and redis.call('GET', key .. ':request') or '',
    redis.call('HMGET', key, 'program', 'model', 'max_attempts', 'tries', 'created_at', 'limited', 'fallen', 'answered',
      'variant', 'started_at'),
    redis.call('GET', 'dj:circuit:' .. f.model .. ':probe') == id and id or ''}
end
if f and f.status == 'running' and f.owner == worker then
  if redis.call('HGET', key, 'claim') == ARGV[4] then return claimed(f.attempt) end
  return {'gone'}
end
if not f or f.status ~= 'queued' or f.owner ~= worker then return {'gone'} end
if is_paused(f.batch) then
  let_go(id, f)
  park(f.batch, id, now)
  return {'parked'}
end
if f.expires_at <= now and not f.started_at then
  end_job(id, f, 'expired', unstarted_outcome(id, 'FAILURE', 'JobExpired', ARGV[5], now), now)
  return {'expired'}
end
if ARGV[6] == '1' then
  -- Someone more urgent waits: give way, but only as many threads as there are urgent messages.
  local urgent = 0
  for _, step in ipairs({'0', '3', '6'}) do
    if tonumber(step) < tonumber(f.priority) then urgent = urgent + redis.call('LLEN', queue_list(f.queue, step)) end
  end
  if urgent > 0 then
    local counter = queue_key(f.queue) .. ':yields'
    local yields = redis.call('INCR', counter)
    if yields == 1 then redis.call('PEXPIRE', counter, ARGV[7]) end
    if yields <= urgent then return {'urgent'} end
  end
end
local answer = ARGV[9]
if f.leads and f.leads ~= answer then end_flight(id, false, now) end
if ARGV[10]:find('follow', 1, true) then
  local what, leader = find_leader(id, answer, tonumber(ARGV[11]))
  if what == 'following' and f.followed < MOST_FOLLOWED then
    follow(id, f, answer)
    return {what, leader}
  end
  if what == 'answered' then return {what, leader} end
end
local until_client = is_client_spent(f, now)
if until_client then
  let_go(id, f)
  park_client(id, f, until_client, now)
  return {'parked'}
end
local reason, ends = gate_of(f.queue, now)
local is_half_open = reason == 'circuit_open' and ends <= now
if is_full(f.queue) and (not reason or is_half_open) then
  reason, ends = 'rate_limited', 0
elseif is_half_open then
  local probe = 'dj:circuit:' .. f.model .. ':probe'
  if redis.call('SET', probe, id, 'NX', 'PX', ARGV[8]) then reason = nil else ends = now + redis.call('PTTL', probe) end
end
if reason then
  local fallen = redis.call('HGET', key, 'fallen') or ''
  return {'gated', reason, ends == 0 and 0 or math.max(1, ends - now), f.queue, f.model, fallen}
end
if ARGV[10]:find('lead', 1, true) then lead(id, answer) end
local attempt = f.attempt + 1
redis.call('HSET', key, 'status', 'running', 'attempt', attempt, 'claim', ARGV[4], 'attempt_at', ms(now))
if not f.started_at then redis.call('HSET', key, 'started_at', ms(now)) end
redis.call('HDEL', key, 'wait', 'until', 'booked', 'so_far')
if f.batch == '' or f.tries then redis.call('ZREM', 'dj:expiring', id) end
recount(f, 'queued', 'running')
redis.call('HINCRBY', queue_key(f.queue), 'taken', -1)
if f.batch ~= '' and redis.call('HEXISTS', batch_key(f.batch), 'limit_cost') == 1 then hold_to_limits(f.batch, now) end
return claimed(attempt)
