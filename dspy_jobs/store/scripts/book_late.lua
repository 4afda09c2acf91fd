-- Book calls that were answered after their attempt had ended: the job's outcome no longer changes, but they are paid
-- for. Answers 1 if the job is still known. ARGV: now, id, then the calls' bill (see _books.lua).
local now, id = clock(ARGV[1]), ARGV[2]
local f = fields(id)
if not f then return 0 end
local sums = {}
f.booked = 0 -- they are numbered by themselves
book(id, f, 3, now, sums)
add_to_books(sums, now)
if f.batch ~= '' then hold_to_limits(f.batch, now) end
return 1
