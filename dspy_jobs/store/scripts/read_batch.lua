-- Read a batch: {hash, request, results so far, workers, gate of its queue, gate's end}, or {} where there is none.
-- ARGV: now, batch.
local now, batch = clock(ARGV[1]), ARGV[2]
local hash = redis.call('HGETALL', batch_key(batch))
if #hash == 0 then return {} end
local queue = redis.call('HGET', batch_key(batch), 'queue')
local gate, ends = shown_gate(queue, now)
return {hash, redis.call('GET', batch_key(batch) .. ':request'), redis.call('LLEN', batch_key(batch) .. ':results'),
  redis.call('ZCOUNT', queue_key(queue) .. ':workers', now, '+inf'), gate or false, ends}
