-- Give jobs this worker took but did not start back to the queue, to be next. Returns how many went back.
-- ARGV: now, worker, template, chunk size, ids…
local now, worker, size = clock(ARGV[1]), ARGV[2], tonumber(ARGV[4])
local groups, returned = {}, 0
for i = 5, #ARGV do
  local id = ARGV[i]
  local f = fields(id)
  if f and f.status == 'queued' and f.owner == worker then
    let_go(id, worker)
    local name = f.queue .. '\0' .. f.priority
    groups[name] = groups[name] or {queue = f.queue, priority = f.priority, ids = {}}
    table.insert(groups[name].ids, id)
    returned = returned + 1
  end
end
for _, group in pairs(groups) do
  for at = 1, #group.ids, size do
    local chunk = {unpack(group.ids, at, math.min(at + size - 1, #group.ids))}
    send(ARGV[3], group.queue, group.priority, chunk, now, true)
  end
end
return returned
