-- Write a part of an upload. Nobody sees it until the batch is committed; abandoned uploads are swept.
-- ARGV: now, batch, priority, program, max_attempts, expires_in, retention, tombstone (ms), client, number of routes,
--       then variant, queue, model of each route, then id, request, number of its route (from 1) of each item.
local now, batch, routes = clock(ARGV[1]), ARGV[2], tonumber(ARGV[10])
local created, expires = ms(now), ms(now + tonumber(ARGV[6]))
redis.call('ZADD', 'dj:staging', now, batch)
for i = 11 + 3 * routes, #ARGV, 3 do
  local id = ARGV[i]
  local key, route = job_key(id), 8 + 3 * tonumber(ARGV[i + 2])
  redis.call('HSET', key, 'status', 'queued', 'batch', batch, 'priority', ARGV[3], 'program', ARGV[4],
    'queue', ARGV[route + 1], 'model', ARGV[route + 2], 'max_attempts', ARGV[5], 'created_at', created,
    'expires_at', expires, 'retention', ARGV[7], 'tombstone', ARGV[8])
  if ARGV[route] ~= '' then redis.call('HSET', key, 'variant', ARGV[route]) end
  if ARGV[9] ~= 'default' then redis.call('HSET', key, 'client', ARGV[9]) end
  redis.call('SET', key .. ':request', ARGV[i + 1])
  redis.call('RPUSH', batch_key(batch) .. ':jobs', id)
end
return redis.call('LLEN', batch_key(batch) .. ':jobs')
