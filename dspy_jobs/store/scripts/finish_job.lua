-- Publish the outcome of an attempt, once: only the worker that holds the job under this fencing token may.
-- ARGV: now, worker, id, token, status, outcome, how it came by its output ('' if it has none), what takes the place of
-- the journal's last record ('' for nothing), then the calls' bill (see _books.lua).
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not runs(f, worker, ARGV[4]) then
  -- Finished before, if the answer was lost on its way.
  return redis.call('GET', outcome_key(id)) == ARGV[6] and 'finished' or 'stale'
end
redis.call('SREM', held_key(worker), id) -- first, for a full Redis lets a script go on that has begun by freeing
local journal = job_key(id) .. ':journal'
if ARGV[8] ~= '' and redis.call('EXISTS', journal) == 1 then redis.call('LSET', journal, -1, ARGV[8]) end
local sums, elapsed = {}, now - tonumber(f.attempt_at)
local used = book(id, f, 9, now, sums)
if used.calls > 0 or f.booked > 0 or f.attempt > 1 then bump_books(sums, costs_key(now), f, 'ran', 1) end
local whole = f.booked > 0 and sums_of_calls(9, 0) or used -- also of calls booked before
if ARGV[5] == 'succeeded' then note_pace(f, elapsed, whole) end
if ARGV[5] ~= 'canceled' then bump_latency(sums, f, elapsed) end
end_jobs({{id, f, ARGV[5], ARGV[6], ARGV[7] ~= '' and {how = ARGV[7]} or nil}}, now, sums)
return 'finished'
