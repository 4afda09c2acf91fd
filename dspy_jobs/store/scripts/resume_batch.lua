-- Resume a batch and send its parked jobs, up to `limit` a call. Answers {status before or 'missing', parked left}.
-- ARGV: now, batch, template, chunk size, limit, '1' to resume or '0' to go on only with what is not paused.
local now, key, size = clock(ARGV[1]), batch_key(ARGV[2]), tonumber(ARGV[4])
local b = redis.call('HMGET', key, 'status', 'queue', 'priority', 'released', 'total')
if not b[1] then return {'missing', 0} end
if b[1] == 'paused' and ARGV[6] == '1' then redis.call('HSET', key, 'status', 'in_progress') end
if redis.call('HGET', key, 'status') == 'in_progress' then
  local ids = {}
  for _, id in ipairs(redis.call('LPOP', key .. ':parked', ARGV[5]) or {}) do
    if redis.call('HGET', job_key(id), 'status') == 'queued' then ids[#ids + 1] = id end
  end
  for at = 1, #ids, size do
    send(ARGV[3], b[2], b[3], {unpack(ids, at, math.min(at + size - 1, #ids))}, now, true)
  end
  -- On the housekeepers' list until all is sent, should the caller die on the way.
  local left = redis.call('LLEN', key .. ':parked') > 0 or tonumber(b[4]) < tonumber(b[5])
  redis.call(left and 'SADD' or 'SREM', 'dj:releasing', ARGV[2])
end
return {b[1], redis.call('LLEN', key .. ':parked')}
