-- Read each named queue: {queued, running, oldest wait's start or false, live workers}. ARGV: now, queues…
local now, out = clock(ARGV[1]), {}
for i = 2, #ARGV do
  local key = queue_key(ARGV[i])
  local n = redis.call('HMGET', key, 'queued', 'running')
  local oldest = redis.call('ZRANGE', key .. ':waiting', 0, 0, 'WITHSCORES')
  out[#out + 1] = {tonumber(n[1] or 0), tonumber(n[2] or 0), oldest[2] or false,
    redis.call('ZCOUNT', key .. ':workers', now, '+inf')}
end
return out
