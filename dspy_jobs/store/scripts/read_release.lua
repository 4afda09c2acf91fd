-- How far a batch has been sent: {status, released, total, parked, threads of its queues}, or {} where there is none.
-- ARGV: now, batch.
local now, key, most = clock(ARGV[1]), batch_key(ARGV[2]), 0
local b = redis.call('HMGET', key, 'status', 'released', 'total', 'queue')
if not b[1] then return {} end
-- The largest number, not the sum: a worker mostly consumes all queues with the same threads.
for queue in b[4]:gmatch('[^,]+') do most = math.max(most, slots(queue, now)) end
return {b[1], tonumber(b[2]), tonumber(b[3]), redis.call('LLEN', key .. ':parked'), most}
