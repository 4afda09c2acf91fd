-- Give jobs this worker took but did not start back to the queue, to be next. Returns how many went back.
-- ARGV: now, worker, chunk size, ids…
local now, worker, size = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local groups, returned = {}, 0
for i = 4, #ARGV do
  local id = ARGV[i]
  local f = fields(id)
  if f and f.status == 'queued' and f.owner == worker then
    let_go(id, f)
    add_to_group(groups, id, f)
    returned = returned + 1
  end
end
send_groups(groups, size, now, true)
return returned
