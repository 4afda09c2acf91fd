-- Close half-open circuits that nobody has asked to probe for a window's time: what failed then says nothing of now.
-- A job that waits or runs will probe. Answers how many were closed. ARGV: now, then model, queue, window (ms) of each.
local now, closed = clock(ARGV[1]), 0
for i = 2, #ARGV, 3 do
  local circuit, queue = 'dj:circuit:' .. ARGV[i], queue_key(ARGV[i + 1])
  local ends = tonumber(redis.call('HGET', queue .. ':gates', 'circuit_open') or nil)
  if ends and ends + tonumber(ARGV[i + 2]) <= now then
    local jobs = redis.call('HMGET', queue, 'queued', 'running')
    if tonumber(jobs[1] or 0) <= 0 and tonumber(jobs[2] or 0) <= 0 then
      redis.call('HDEL', queue .. ':gates', 'circuit_open')
      redis.call('DEL', circuit, circuit .. ':probe')
      closed = closed + 1
    end
  end
end
return closed
