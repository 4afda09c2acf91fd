-- Queue ended jobs again, under their old ids and with fresh attempts. Never touches what succeeded, or what is
-- queued or running. Returns {requeued, first refused status or ''}.
-- ARGV: now, expires_in (ms), chunk size, ids…
local now, size = clock(ARGV[1]), tonumber(ARGV[3])
local groups, requeued, refused = {}, 0, ''
for i = 4, #ARGV do
  local id = ARGV[i]
  local f = fields(id)
  local again = f and (f.status == 'failed' or f.status == 'canceled' or f.status == 'expired')
  local key = job_key(id)
  if again and redis.call('EXISTS', key .. ':request') == 0 then again, f.status = false, 'gone' end
  local b = f and f.batch ~= '' and redis.call('HMGET', batch_key(f.batch), 'status')
  if again and b and not b[1] then again, f.status = false, 'gone' end
  if again then
    local outcome = redis.call('GET', outcome_key(id))
    local last = outcome and cjson.decode(outcome).attempt
    if last and last ~= cjson.null then redis.call('RPUSH', key .. ':attempts', cjson.encode(last)) end
    redis.call('DEL', outcome_key(id))
    redis.call('HSET', key, 'status', 'queued', 'tries', 0, 'limited', 0, 'expires_at', ms(now + tonumber(ARGV[2])))
    redis.call('ZADD', 'dj:expiring', now + tonumber(ARGV[2]), id)
    redis.call('HDEL', key, 'started_at', 'ended_at', 'place', 'lost')
    for _, part in ipairs({'', ':request', ':attempts', ':journal'}) do redis.call('PERSIST', key .. part) end
    recount(f, f.status, 'queued')
    if b then
      count_failures_anew(f.batch)
      if b[1] == 'ended' then
        redis.call('HSET', batch_key(f.batch), 'status', 'in_progress')
        redis.call('HDEL', batch_key(f.batch), 'ended_at', 'ended_reason', 'held')
      end
      for _, part in ipairs({'', ':request', ':jobs', ':results'}) do
        redis.call('PERSIST', batch_key(f.batch) .. part)
      end
    end
    add_to_group(groups, id, f)
    requeued = requeued + 1
  elseif refused == '' then
    refused = f and f.status or 'missing'
  end
end
send_groups(groups, size, now)
return {requeued, refused}
