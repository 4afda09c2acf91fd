-- Publish the outcome of an attempt, once: only the worker that holds the job under this fencing token may.
-- ARGV: now, worker, id, token, status, outcome, input tokens, output tokens, calls, cost (nano-dollars, or '').
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not runs(f, worker, ARGV[4]) then return 'stale' end
redis.call('SREM', held_key(worker), id) -- first, for a full Redis lets a script go on that has begun by freeing
add_spent(f.batch, {ARGV[7], ARGV[8], ARGV[9], ARGV[10]})
end_job(id, f, ARGV[5], ARGV[6], now)
return 'finished'
