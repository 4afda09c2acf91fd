-- Accept one job: its record and its message in one step. Refuses when too many jobs are queued.
-- A job that expires sooner than others do is noted as such; the others are found by the age of their message.
-- ARGV: now, id, request, queue limit, retention, tombstone, expires_in (all ms), queue, priority,
--       expires sooner ('1'), then field/value pairs for the job's hash.
local now, id = clock(ARGV[1]), ARGV[2]
local done = redis.call('HGET', job_key(id), 'created_at')
if done then return {'accepted', tonumber(done)} end -- the answer was lost on its way
local queued = tonumber(redis.call('HGET', 'dj:totals', 'queued') or '0')
if queued >= tonumber(ARGV[4]) then return {'queue_full', queued} end
local queue, priority = ARGV[8], ARGV[9]
local key = job_key(id)
redis.call('HSET', key, 'status', 'queued', 'queue', queue, 'priority', priority,
  'created_at', ms(now), 'expires_at', ms(now + tonumber(ARGV[7])), 'retention', ARGV[5], 'tombstone', ARGV[6],
  unpack(ARGV, 11))
redis.call('SET', key .. ':request', ARGV[3])
redis.call('ZADD', 'dj:jobs', 0, id)
if ARGV[10] == '1' then redis.call('ZADD', 'dj:expiring', now + tonumber(ARGV[7]), id) end
redis.call('HINCRBY', 'dj:totals', 'queued', 1)
redis.call('HINCRBY', queue_key(queue), 'queued', 1)
send(queue, priority, {id}, now)
return {'accepted', now}
