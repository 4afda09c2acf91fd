-- Pause a batch: no further job of it starts. One that a limit has paused keeps its reason and is held besides, so that
-- it does not go on by itself. Answers its status before, or 'missing'. ARGV: now, batch.
local now, key = clock(ARGV[1]), batch_key(ARGV[2])
local status = redis.call('HGET', key, 'status')
if not status then return 'missing' end
if status == 'in_progress' then
  redis.call('HSET', key, 'status', 'paused', 'pause_reason', 'operator', 'paused_at', ms(now))
elseif status == 'paused' then
  redis.call('HSET', key, 'held', '1')
end
if status == 'in_progress' or status == 'paused' then redis.call('SADD', 'dj:paused_batches', ARGV[2]) end
return status
