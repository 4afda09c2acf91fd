-- A worker received a message: take those of its jobs that still wait. A job is taken at most once, so a message
-- delivered twice is harmless. Jobs of a paused batch are parked with it. Returns the ids taken.
-- ARGV: now, worker, ids…
local now, worker, taken = clock(ARGV[1]), ARGV[2], {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local f = fields(id)
  if f and redis.call('ZREM', waiting_key(f.queue, f.priority), id) == 1 then
    if is_paused(f.batch) then
      park(f.batch, id)
    else
      redis.call('SADD', held_key(worker), id)
      redis.call('HSET', job_key(id), 'owner', worker)
      taken[#taken + 1] = id
    end
  elseif f and f.status == 'queued' and f.owner == worker then
    taken[#taken + 1] = id -- taken by this worker before: the answer was lost on its way
  end
end
-- A worker that was thought lost meanwhile has no lease before its next round, but holds jobs from now on.
if #taken > 0 then redis.call('ZADD', 'dj:workers', 'NX', now + 10000, worker) end
return taken
