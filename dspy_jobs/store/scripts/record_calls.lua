-- Book calls of an attempt that still runs. Answers 'booked', 'stale', or 'budget_exhausted': no further call may be made.
-- ARGV: now, worker, id, token, what the attempt used so far (JSON), then the calls' bill (see _books.lua).
local now, worker, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not runs(f, worker, ARGV[4]) then return 'stale' end
local sums = {}
local _, last = book(id, f, 6, now, sums)
add_to_books(sums, now)
redis.call('HSET', job_key(id), 'so_far', ARGV[5], 'booked', math.max(last, f.booked))
if exhausted('*', 0, now) or exhausted(f.client, 0, now) then return 'budget_exhausted' end
if f.batch ~= '' then
  hold_to_limits(f.batch, now)
  local b = redis.call('HMGET', batch_key(f.batch), 'limit_cost', 'cost')
  if b[1] and tonumber(b[2] or '0') >= tonumber(b[1]) then return 'budget_exhausted' end
end
return 'booked'
