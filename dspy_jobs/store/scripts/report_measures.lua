-- Add what a worker has measured to what all have, once: a report that comes again is passed over. Answers 1 if it was
-- added. ARGV: worker, number of the report, time (ms) for which the number is kept, then a field and an amount each…
local last = 'dj:worker:' .. ARGV[1] .. ':reported'
if tonumber(redis.call('GET', last) or '0') >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', last, ARGV[2], 'PX', ARGV[3])
for i = 4, #ARGV, 2 do add('dj:metrics', ARGV[i], ARGV[i + 1]) end
return 1
