-- Start an attempt of a job this worker has taken: the moment a job becomes `running`. The attempt's number is the
-- fencing token. Answers {outcome, …}: claimed | gone | parked | expired | urgent.
-- ARGV: now, worker, id, expired problem, may yield ('1' lets more urgent jobs go first), yields key lifetime.
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not f or f.status ~= 'queued' or redis.call('SISMEMBER', held_key(worker), id) == 0 then
  redis.call('SREM', held_key(worker), id)
  return {'gone'}
end
if f.batch ~= '' and redis.call('HGET', batch_key(f.batch), 'status') == 'paused' then
  redis.call('SREM', held_key(worker), id)
  redis.call('RPUSH', batch_key(f.batch) .. ':parked', id)
  return {'parked'}
end
if f.expires_at <= now and redis.call('HEXISTS', job_key(id), 'started_at') == 0 then
  redis.call('SREM', held_key(worker), id)
  end_job(id, f, 'expired', unstarted_outcome(id, 'FAILURE', 'JobExpired', ARGV[4], now), now)
  return {'expired'}
end
if ARGV[5] == '1' then
  -- Someone more urgent waits: give way, but only as many threads as there are urgent messages.
  local urgent = 0
  for _, step in ipairs({'0', '3', '6'}) do
    if tonumber(step) < tonumber(f.priority) then urgent = urgent + redis.call('LLEN', queue_list(f.queue, step)) end
  end
  if urgent > 0 then
    local key = queue_key(f.queue) .. ':yields'
    local yields = redis.call('INCR', key)
    if yields == 1 then redis.call('PEXPIRE', key, ARGV[6]) end
    if yields <= urgent then return {'urgent'} end
  end
end
local attempt = f.attempt + 1
local key = job_key(id)
redis.call('HSET', key, 'status', 'running', 'attempt', attempt, 'owner', worker, 'attempt_at', ms(now))
redis.call('HSETNX', key, 'started_at', ms(now))
redis.call('HDEL', key, 'wait', 'until')
recount(f.queue, f.batch, 'queued', 'running')
return {'claimed', attempt, ms(now), f.batch, redis.call('GET', key .. ':request') or '',
  redis.call('HMGET', key, 'program', 'model', 'max_attempts', 'tries', 'created_at')}
