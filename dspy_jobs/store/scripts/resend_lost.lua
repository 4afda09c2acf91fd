-- Find queued jobs whose message has vanished and send them again, up to `limit` a call; a needless second message is
-- harmless. A queue's list is first in, first out, so a job whose message is older than the list's oldest must have
-- been taken already; if it still waits, its message is gone. Messages put to the front bear no time and are passed
-- over. Returns how many were sent again.
-- ARGV: now, queue, grace (ms), limit.
local now, queue, sent = clock(ARGV[1]), ARGV[2], 0
for _, step in ipairs({'0', '3', '6'}) do
  local oldest, next_ones = now, redis.call('LRANGE', queue_list(queue, step), -20, -1)
  for _, waiting in ipairs(next_ones) do
    local time = tonumber(waiting:match('"delivery_tag":"%d+@(%d+)"') or '0')
    if time > 0 then oldest = math.min(oldest, time) end
  end
  if #next_ones > 0 and oldest == now then oldest = 0 end -- nothing is known: wait for the next time
  local lost = redis.call('ZRANGEBYSCORE', waiting_key(queue, step), '-inf', oldest - tonumber(ARGV[3]), 'LIMIT', 0,
    tonumber(ARGV[4]) - sent)
  for _, id in ipairs(lost) do
    local f = fields(id)
    if f and f.status == 'queued' then
      send(queue, step, {id}, now, true) -- it is counted as waiting already
      sent = sent + 1
    else
      redis.call('ZREM', waiting_key(queue, step), id)
    end
  end
end
return sent
