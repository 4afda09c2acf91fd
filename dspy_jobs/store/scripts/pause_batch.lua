-- Pause a batch: no further job of it starts. Answers its status before, or 'missing'. ARGV: batch.
local key = batch_key(ARGV[1])
local status = redis.call('HGET', key, 'status')
if not status then return 'missing' end
if status == 'in_progress' then redis.call('HSET', key, 'status', 'paused') end
return status
