-- Resume a batch and send its parked jobs, up to `limit` a call. Answers {status before or 'missing', parked left}.
-- ARGV: now, batch, template, chunk size, limit, '1' to resume or '0' to go on only with what is not paused.
local now, key, size = clock(ARGV[1]), batch_key(ARGV[2]), tonumber(ARGV[4])
local b = redis.call('HMGET', key, 'status', 'released', 'total')
if not b[1] then return {'missing', 0} end
if b[1] == 'paused' and ARGV[6] == '1' then redis.call('HSET', key, 'status', 'in_progress') end
if redis.call('HGET', key, 'status') == 'in_progress' then
  local groups = {} -- a job that fell back to another model waits in another queue than its batch
  for _, id in ipairs(redis.call('LPOP', key .. ':parked', ARGV[5]) or {}) do
    if redis.call('HDEL', job_key(id), 'parked') == 1 then add_to_group(groups, id, fields(id)) end
  end
  send_groups(ARGV[3], groups, size, now, true)
  -- On the housekeepers' list until all is sent, should the caller die on the way.
  local left = redis.call('LLEN', key .. ':parked') > 0 or tonumber(b[2]) < tonumber(b[3])
  redis.call(left and 'SADD' or 'SREM', 'dj:releasing', ARGV[2])
end
return {b[1], redis.call('LLEN', key .. ':parked')}
