-- Start an attempt of a job this worker has taken: the moment a job becomes `running`. The attempt's number is the
-- fencing token. Answers {outcome, …}: claimed | gone | parked | expired | urgent.
-- `nonce` names the request, so that it can be repeated when the answer was lost on its way.
-- ARGV: now, worker, id, nonce, expired problem, may yield ('1' lets more urgent jobs go first), yields lifetime.
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f, key = fields(id), job_key(id)
local function claimed(attempt)
  return {'claimed', attempt, redis.call('HGET', key, 'attempt_at'), f.batch,
    redis.call('GET', key .. ':request') or '',
    redis.call('HMGET', key, 'program', 'model', 'max_attempts', 'tries', 'created_at')}
end
if f and f.status == 'running' and f.owner == worker then
  if redis.call('HGET', key, 'claim') == ARGV[4] then return claimed(f.attempt) end
  return {'gone'}
end
if not f or f.status ~= 'queued' or f.owner ~= worker then return {'gone'} end
if is_paused(f.batch) then
  let_go(id, worker)
  append(f.batch, ':parked', id)
  return {'parked'}
end
if f.expires_at <= now and redis.call('HEXISTS', key, 'started_at') == 0 then
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
local attempt = f.attempt + 1
redis.call('HSET', key, 'status', 'running', 'attempt', attempt, 'claim', ARGV[4], 'attempt_at', ms(now))
redis.call('HSETNX', key, 'started_at', ms(now))
redis.call('HDEL', key, 'wait', 'until')
recount(f.queue, f.batch, 'queued', 'running')
return claimed(attempt)
