-- Make a staged upload a batch: from here on its jobs are accepted. Their messages follow (release_jobs.lua).
-- ARGV: now, batch, request, queue limit, expected total, expires_in (ms), number of queues, then each queue and how
--       many of the jobs it gets, then field/value pairs.
local now, batch, total = clock(ARGV[1]), ARGV[2], tonumber(ARGV[5])
local key = batch_key(batch)
local done = redis.call('HGET', key, 'created_at')
if done then return {'accepted', tonumber(done)} end -- the answer was lost on its way
local queued = tonumber(redis.call('HGET', 'dj:totals', 'queued') or '0')
if queued + total > tonumber(ARGV[4]) then return {'queue_full', queued} end
if redis.call('LLEN', key .. ':jobs') ~= total then return {'lost', redis.call('LLEN', key .. ':jobs')} end
local queues, rest = {}, 8 + 2 * tonumber(ARGV[7])
for i = 8, rest - 1, 2 do
  queues[#queues + 1] = ARGV[i]
  redis.call('HINCRBY', queue_key(ARGV[i]), 'queued', ARGV[i + 1])
end
redis.call('HSET', key, 'status', 'in_progress', 'created_at', ms(now), 'total', total, 'queued', total,
  'running', 0, 'succeeded', 0, 'failed', 0, 'canceled', 0, 'expired', 0, 'cached', 0, 'released', 0,
  'queue', table.concat(queues, ','), unpack(ARGV, rest))
redis.call('SET', key .. ':request', ARGV[3])
redis.call('ZREM', 'dj:staging', batch)
redis.call('ZADD', 'dj:batches', 0, batch)
redis.call('ZADD', 'dj:expiring', now + tonumber(ARGV[6]), batch)
redis.call('SADD', 'dj:releasing', batch)
redis.call('HINCRBY', 'dj:totals', 'queued', total)
return {'accepted', now}
