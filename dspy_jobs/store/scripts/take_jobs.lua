-- A worker received a message: take those of its jobs that still wait. A job is taken at most once, so a message
-- delivered twice is harmless. Jobs of a paused batch are parked with it. Returns the ids taken.
-- ARGV: worker, ids…
local worker, taken = ARGV[1], {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local f = fields(id)
  if f and redis.call('ZREM', queue_key(f.queue) .. ':waiting', id) == 1 then
    if f.batch ~= '' and redis.call('HGET', batch_key(f.batch), 'status') == 'paused' then
      redis.call('RPUSH', batch_key(f.batch) .. ':parked', id)
    elseif f.status == 'queued' then
      redis.call('SADD', held_key(worker), id)
      taken[#taken + 1] = id
    end
  elseif f and f.status == 'queued' and redis.call('SISMEMBER', held_key(worker), id) == 1 then
    taken[#taken + 1] = id -- taken by this worker before: the answer was lost on its way
  end
end
return taken
