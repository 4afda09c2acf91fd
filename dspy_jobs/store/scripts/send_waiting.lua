-- Send jobs that waited for something that is over: for a leader's answer, when one step could not send them all, and
-- for their client's budget. A bounded step. Answers how many lists hold more that can be sent at once. ARGV: now.
local now, more = clock(ARGV[1]), 0
local landing = redis.call('HGETALL', 'dj:landing')
for i = 1, math.min(#landing, 20), 2 do
  if send_followers(landing[i], landing[i + 1], now) then more = more + 1 end
end
for _, client in ipairs(redis.call('SMEMBERS', 'dj:waiting_clients')) do
  local list, groups = client_parked(client), {}
  local first = redis.call('LINDEX', list, 0)
  if not is_client_spent(first and fields(first) or {client = client, queue = ''}, now) then
    for _, id in ipairs(redis.call('LPOP', list, STEP) or {}) do
      if redis.call('HDEL', job_key(id), 'parked') == 1 then
        redis.call('HDEL', job_key(id), 'wait', 'until')
        add_to_group(groups, id, fields(id))
      end
    end
    send_groups(groups, CHUNK, now, true)
    if redis.call('EXISTS', list) == 0 then redis.call('SREM', 'dj:waiting_clients', client) else more = more + 1 end
  end
end
return more
