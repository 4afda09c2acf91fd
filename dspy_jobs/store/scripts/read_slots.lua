-- Threads of the live workers of a queue. ARGV: now, queue.
return slots(ARGV[2], clock(ARGV[1]))
