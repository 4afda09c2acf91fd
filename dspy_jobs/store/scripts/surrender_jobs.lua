-- A worker that must stop now gives back everything it holds, running or not, up to `limit` a call. Nobody failed, so
-- no attempt is counted. Returns how many went back.
-- ARGV: now, worker, template, limit, problem of the attempts cut short.
local now, worker, returned = clock(ARGV[1]), ARGV[2], 0
for _, id in ipairs(redis.call('SRANDMEMBER', held_key(worker), ARGV[4])) do
  redis.call('SREM', held_key(worker), id)
  local f = fields(id)
  if f and f.owner == worker then
    if f.status == 'running' then put_back(id, f, ARGV[5], now) else let_go(id, worker) end
    send(ARGV[3], f.queue, f.priority, {id}, now, true)
    returned = returned + 1
  end
end
return returned
