-- Read each named queue: {queued, running, oldest wait's start or false, live workers, gate or false, gate's end}.
-- ARGV: now, queues…
local now, out = clock(ARGV[1]), {}
for i = 2, #ARGV do
  local key = queue_key(ARGV[i])
  local n = redis.call('HMGET', key, 'queued', 'running')
  local oldest = false
  for _, step in ipairs({'0', '3', '6'}) do
    local first = tonumber(redis.call('ZRANGE', waiting_key(ARGV[i], step), 0, 0, 'WITHSCORES')[2])
    if first and (not oldest or first < oldest) then oldest = first end
  end
  local gate, ends = shown_gate(ARGV[i], now)
  out[#out + 1] = {tonumber(n[1] or 0), tonumber(n[2] or 0), oldest and ms(oldest),
    redis.call('ZCOUNT', key .. ':workers', now, '+inf'), gate or false, ends}
end
return out
