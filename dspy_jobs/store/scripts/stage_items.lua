-- Write a part of an upload. Nobody sees it until the batch is committed; abandoned uploads are swept.
-- ARGV: now, batch, queue, priority, program, model, max_attempts, expires_in, retention, tombstone (ms),
--       then id, request pairs.
local now, batch = clock(ARGV[1]), ARGV[2]
local created, expires = ms(now), ms(now + tonumber(ARGV[8]))
redis.call('ZADD', 'dj:staging', now, batch)
for i = 11, #ARGV, 2 do
  local id = ARGV[i]
  local key = job_key(id)
  redis.call('HSET', key, 'status', 'queued', 'batch', batch, 'queue', ARGV[3], 'priority', ARGV[4],
    'program', ARGV[5], 'model', ARGV[6], 'max_attempts', ARGV[7], 'created_at', created, 'expires_at', expires,
    'retention', ARGV[9], 'tombstone', ARGV[10])
  redis.call('SET', key .. ':request', ARGV[i + 1])
  redis.call('RPUSH', batch_key(batch) .. ':jobs', id)
end
return redis.call('LLEN', batch_key(batch) .. ':jobs')
