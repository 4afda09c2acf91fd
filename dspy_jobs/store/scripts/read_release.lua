-- How far a batch has been sent: {status, released, total, parked, threads of its queue}, or {} where there is none.
-- ARGV: now, batch.
local key = batch_key(ARGV[2])
local b = redis.call('HMGET', key, 'status', 'released', 'total', 'queue')
if not b[1] then return {} end
return {b[1], tonumber(b[2]), tonumber(b[3]), redis.call('LLEN', key .. ':parked'), slots(b[4], clock(ARGV[1]))}
