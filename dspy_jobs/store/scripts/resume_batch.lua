-- Resume a batch and send its parked jobs, up to `limit` a call. Answers {status before or 'missing', parked left}, or
-- {'max_cost', least limit} where it was paused for its cost and would be again at once: then nothing is changed.
-- ARGV: now, batch, chunk size, limit, '1' to resume or '0' to go on only with what is not paused,
--       then pairs of a limit's field and its new value, '' for none.
local now, key, size = clock(ARGV[1]), batch_key(ARGV[2]), tonumber(ARGV[3])
local b = redis.call('HMGET', key, 'status', 'released', 'total', 'pause_reason', 'limit_cost')

-- The least limit under which it may go on: beyond what is spent, with room for what hold_to_limits reckons with.
local function least_limit()
  local spent, ahead = cost_ahead(ARGV[2])
  return math.max(spent + 1, math.ceil(ahead))
end

if not b[1] then return {'missing', 0} end
if ARGV[5] == '1' and (b[1] == 'paused' or b[1] == 'in_progress') then
  local change = {limit_cost = b[5] or ''}
  for i = 6, #ARGV, 2 do change[ARGV[i]] = ARGV[i + 1] end
  local limit = tonumber(change.limit_cost)
  if b[1] == 'paused' and b[4] == 'max_cost' and limit and limit < least_limit() then return {'max_cost', least_limit()} end
  for field, value in pairs(change) do
    if value == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, value) end
  end
  if b[1] == 'paused' then
    redis.call('HSET', key, 'status', 'in_progress')
    redis.call('HDEL', key, 'pause_reason', 'paused_at', 'held')
    redis.call('SREM', 'dj:paused_batches', ARGV[2])
    if b[4] == 'max_error_rate' then count_failures_anew(ARGV[2]) end
  end
end
if redis.call('HGET', key, 'status') == 'in_progress' then
  local groups = {} -- a job that fell back to another model waits in another queue than its batch
  for _, id in ipairs(redis.call('LPOP', key .. ':parked', ARGV[4]) or {}) do
    if redis.call('HDEL', job_key(id), 'parked') == 1 then add_to_group(groups, id, fields(id)) end
  end
  send_groups(groups, size, now, true)
  -- On the housekeepers' list until all is sent, should the caller die on the way.
  local left = redis.call('LLEN', key .. ':parked') > 0 or tonumber(b[2]) < tonumber(b[3])
  redis.call(left and 'SADD' or 'SREM', 'dj:releasing', ARGV[2])
end
return {b[1], redis.call('LLEN', key .. ':parked')}
