-- End queued jobs that did not start in time, whether or not a worker lives to notice. A batch's jobs are looked through
-- in steps; single jobs by the age of their messages. Looks at no more than `limit` jobs; returns {how many it
-- looked at, rows of `tell`}.
-- ARGV: now, expired problem, limit, usual expires_in (ms), queues…
local now, left = clock(ARGV[1]), tonumber(ARGV[3])

local function expire(id)
  local f = fields(id)
  if f and f.status == 'queued' and f.expires_at <= now and redis.call('HEXISTS', job_key(id), 'started_at') == 0 then
    stop_waiting(id, f)
    redis.call('ZREM', 'dj:delayed', id)
    redis.call('ZADD', 'dj:jobs', 0, id)
    end_job(id, f, 'expired', unstarted_outcome(id, 'FAILURE', 'JobExpired', ARGV[2], now), now)
    return true
  end
  return false
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'dj:expiring', '-inf', now, 'LIMIT', 0, left)) do
  if left <= 0 then break end
  if id:sub(1, 4) == 'job_' then
    expire(id)
    left = left - 1
    redis.call('ZREM', 'dj:expiring', id)
  else
    local from = tonumber(redis.call('HGET', batch_key(id), 'looked_at') or '0')
    local ids = redis.call('LRANGE', batch_key(id) .. ':jobs', from, from + left - 1)
    for _, job in ipairs(ids) do expire(job) end
    if #ids < left then
      redis.call('ZREM', 'dj:expiring', id)
    else
      redis.call('HSET', batch_key(id), 'looked_at', from + #ids)
    end
    left = left - #ids
  end
end
for i = 5, #ARGV do
  for _, step in ipairs({'0', '3', '6'}) do
    local key = waiting_key(ARGV[i], step)
    local old = redis.call('ZRANGEBYSCORE', key, '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, math.max(0, left))
    for _, id in ipairs(old) do
      -- One that may wait longer, or has started before, is not looked at again before the same time has passed.
      if not expire(id) then redis.call('ZADD', key, 'XX', now, id) end
    end
    left = left - #old
  end
end
return {tonumber(ARGV[3]) - left, told}
