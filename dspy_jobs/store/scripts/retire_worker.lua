-- A worker stops for good and consumes nothing more; its lease stays until its held jobs are back or done.
-- ARGV: worker, queues…
for i = 2, #ARGV do redis.call('ZREM', queue_key(ARGV[i]) .. ':workers', ARGV[1]) end
if redis.call('SCARD', held_key(ARGV[1])) == 0 then
  redis.call('ZREM', 'dj:workers', ARGV[1])
  redis.call('DEL', 'dj:worker:' .. ARGV[1], cancel_key(ARGV[1]))
end
return 1
