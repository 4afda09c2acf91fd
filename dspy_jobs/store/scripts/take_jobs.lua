-- A worker received a message: take those of its jobs that still wait. A job is taken at most once, so a message
-- delivered twice is harmless. Jobs of a paused batch are parked with it. Answers {now, {id, attempts so far, batch,
-- program, model, variant, job whose answer is its own or '', request}…}; requests up to a size in all, '' beyond it.
-- ARGV: now, worker, most bytes of requests, ids…
local now, worker, taken, left, paused, sums = clock(ARGV[1]), ARGV[2], {}, tonumber(ARGV[3]), {}, {}

local function row(id, f)
  local request = left > 0 and redis.call('GET', job_key(id) .. ':request') or ''
  left = left - #request
  return {id, f.attempt, f.batch, f.program, f.model, f.variant, f.answer, left >= 0 and request or ''}
end

for i = 4, #ARGV do
  local id = ARGV[i]
  local f = fields(id)
  if f and redis.call('ZREM', waiting_key(f.queue, f.priority), id) == 1 then
    if f.batch ~= '' then bump(sums, batch_key(f.batch), 'waiting ' .. f.queue, -1) end
    if paused[f.batch] == nil then paused[f.batch] = is_paused(f.batch) end
    if paused[f.batch] then
      park(f.batch, id, now)
    else
      redis.call('SADD', held_key(worker), id)
      redis.call('HSET', job_key(id), 'owner', worker)
      bump(sums, queue_key(f.queue), 'taken', 1)
      taken[#taken + 1] = row(id, f)
    end
  elseif f and f.status == 'queued' and f.owner == worker then
    taken[#taken + 1] = row(id, f) -- taken by this worker before: the answer was lost on its way
  end
end
add_all(sums)
-- A worker that was thought lost meanwhile has no lease before its next round, but holds jobs from now on.
if #taken > 0 then redis.call('ZADD', 'dj:workers', 'NX', now + 10000, worker) end
return {now, taken}
