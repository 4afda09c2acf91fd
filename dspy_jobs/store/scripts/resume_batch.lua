-- Resume a batch and send its parked jobs, up to `limit` a call. Answers {status before or 'missing', parked left}.
-- ARGV: now, batch, template, chunk size, limit.
local now, key, size = clock(ARGV[1]), batch_key(ARGV[2]), tonumber(ARGV[4])
local b = redis.call('HMGET', key, 'status', 'queue', 'priority')
if not b[1] then return {'missing', 0} end
if b[1] == 'paused' then redis.call('HSET', key, 'status', 'in_progress') end
if b[1] == 'paused' or b[1] == 'in_progress' then
  local ids = {}
  for _, id in ipairs(redis.call('LPOP', key .. ':parked', ARGV[5]) or {}) do
    if redis.call('HGET', job_key(id), 'status') == 'queued' then ids[#ids + 1] = id end
  end
  for at = 1, #ids, size do
    send(ARGV[3], b[2], b[3], {unpack(ids, at, math.min(at + size - 1, #ids))}, now, true)
  end
end
return {b[1], redis.call('LLEN', key .. ':parked')}
