-- Cancel a job: at once if it is queued, by asking its worker if it runs. Answers {what, status}.
-- ARGV: now, id, canceled problem.
local now, id = clock(ARGV[1]), ARGV[2]
local f = fields(id)
if not f then return {'missing', ''} end
if f.status == 'queued' then
  redis.call('ZREM', queue_key(f.queue) .. ':waiting', id)
  redis.call('ZREM', 'dj:delayed', id)
  end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', ARGV[3], now), now)
  return {'canceled', 'canceled'}
end
if f.status == 'running' then
  redis.call('HSET', job_key(id), 'cancel', '1')
  redis.call('SADD', cancel_key(f.owner), id)
  return {'canceling', 'running'}
end
return {f.status == 'canceled' and 'canceled' or 'finished', f.status}
