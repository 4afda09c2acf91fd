-- Batches with work left: {canceling, releasing (not those that are paused), uploads abandoned}.
-- ARGV: now, age (ms) of an abandoned upload, limit.
local now, limit, releasing = clock(ARGV[1]), tonumber(ARGV[3]), {}
for _, batch in ipairs(redis.call('SMEMBERS', 'dj:releasing')) do
  local status = redis.call('HGET', batch_key(batch), 'status')
  if not status then
    redis.call('SREM', 'dj:releasing', batch)
  elseif status == 'in_progress' and #releasing < limit then
    releasing[#releasing + 1] = batch
  end
end
return {redis.call('SRANDMEMBER', 'dj:canceling', limit), releasing,
  redis.call('ZRANGEBYSCORE', 'dj:staging', '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, limit)}
