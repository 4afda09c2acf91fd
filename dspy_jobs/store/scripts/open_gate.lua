-- Open a queue's gate that was closed for a reason. ARGV: queue, reason.
return redis.call('HDEL', queue_key(ARGV[1]) .. ':gates', ARGV[2])
