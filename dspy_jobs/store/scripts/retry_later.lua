-- An attempt failed and another may help: keep the attempt, queue the job again when its wait is over.
-- A job whose cancellation was asked for ends here. ARGV: now, worker, id, token, attempt record, delay (ms),
-- wait reason, canceled problem, input tokens, output tokens, calls, cost (nano-dollars, or '').
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not runs(f, worker, ARGV[4]) then return 'stale' end
local key, due = job_key(id), now + tonumber(ARGV[6])
add_spent(f.batch, {ARGV[9], ARGV[10], ARGV[11], ARGV[12]})
redis.call('RPUSH', key .. ':attempts', ARGV[5])
redis.call('PEXPIRE', key .. ':attempts', tonumber(f.retention) + math.max(0, f.expires_at - now) + tonumber(ARGV[6]))
if redis.call('HGET', key, 'cancel') == '1' then
  end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', ARGV[8], now), now)
  return 'canceled'
end
redis.call('HSET', key, 'status', 'queued', 'wait', ARGV[7], 'until', ms(due))
redis.call('HINCRBY', key, 'tries', 1)
let_go(id, worker)
recount(f.queue, f.batch, 'running', 'queued')
redis.call('ZADD', 'dj:delayed', due, id)
return 'delayed'
