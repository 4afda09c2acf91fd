-- Send up to `limit` jobs whose wait is over. Any live process may run it. Returns how many moved.
-- ARGV: now, limit.
local now = clock(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', 'dj:delayed', '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  redis.call('ZREM', 'dj:delayed', id)
  local f = fields(id)
  if f and f.status == 'queued' then
    redis.call('HDEL', job_key(id), 'wait', 'until')
    send_job(id, f, now, true)
  end
end
return #due
