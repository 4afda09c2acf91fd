-- A worker says that it lives: its lease runs on, for itself and for each queue it consumes. Answers the jobs it
-- must stop. ARGV: now, worker, lease (ms), description, queues…
local now, worker = clock(ARGV[1]), ARGV[2]
local ends = now + tonumber(ARGV[3])
redis.call('ZADD', 'dj:workers', ends, worker)
redis.call('SET', 'dj:worker:' .. worker, ARGV[4], 'PX', 86400000)
for i = 5, #ARGV do
  redis.call('ZADD', queue_key(ARGV[i]) .. ':workers', ends, worker)
  redis.call('ZREMRANGEBYSCORE', queue_key(ARGV[i]) .. ':workers', '-inf', '(' .. ms(now)) -- those who left no notice
end
return redis.call('SMEMBERS', cancel_key(worker))
