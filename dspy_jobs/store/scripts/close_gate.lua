-- Close a queue's gate for a reason until a time, 0 meaning until it is opened; never shortens a longer closing.
-- ARGV: now, queue, reason, for (ms; 0 = until opened).
local key, now = queue_key(ARGV[2]) .. ':gates', clock(ARGV[1])
local until_ms = ARGV[4] == '0' and 0 or now + tonumber(ARGV[4])
local present = tonumber(redis.call('HGET', key, ARGV[3]) or '-1')
if present ~= 0 and (until_ms == 0 or until_ms > present) then redis.call('HSET', key, ARGV[3], ms(until_ms)) end
return 1
