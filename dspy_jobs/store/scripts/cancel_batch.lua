-- Cancel a batch in bounded steps: the first call marks it, each call cancels up to `limit` of its jobs from `from`
-- on. Running jobs are asked to stop. Answers {status before or 'missing', next position or -1 when through, rows of `tell`}.
-- ARGV: now, batch, canceled problem, from, limit.
local now, batch, from, limit = clock(ARGV[1]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local key = batch_key(batch)
local status = redis.call('HGET', key, 'status')
if not status then
  redis.call('SREM', 'dj:canceling', batch)
  return {'missing', -1, told}
end
if status == 'ended' then return {'ended', -1, told} end
redis.call('HSET', key, 'status', 'canceling')
redis.call('SADD', 'dj:canceling', batch)
redis.call('SREM', 'dj:releasing', batch)
redis.call('SREM', 'dj:paused_batches', batch)
local ids = redis.call('LRANGE', key .. ':jobs', from, from + limit - 1)
for _, id in ipairs(ids) do
  local f = fields(id)
  if f then stop_job(id, f, ARGV[3], now) end
end
if #ids < limit then
  redis.call('SREM', 'dj:canceling', batch)
  redis.call('DEL', key .. ':parked')
  return {status, -1, told}
end
return {status, from + #ids, told}
