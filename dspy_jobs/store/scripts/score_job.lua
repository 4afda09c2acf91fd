-- Keep the score that a caller gave an ended job; the same name again replaces it. Answers scored | missing | too_many
-- (names of the program) | full (no room for another job's) | the status that forbids it.
-- ARGV: now, id, name, value, most names of a program, most jobs with a score of a name.
local now, id, name = clock(ARGV[1]), ARGV[2], ARGV[3]
local f = fields(id)
if not f or redis.call('EXISTS', job_key(id) .. ':request') == 0 then return 'missing' end
if not TERMINAL[f.status] then return f.status end
local index = 'dj:scores:' .. f.program
local values = index .. ':' .. f.variant .. ':' .. name
local kept = tonumber(f.retention) + tonumber(f.tombstone)
redis.call('ZREMRANGEBYSCORE', index, '-inf', now - kept)
if not redis.call('ZSCORE', index, name) and redis.call('ZCARD', index) >= tonumber(ARGV[5]) then return 'too_many' end
if redis.call('HEXISTS', values, id) == 0 and redis.call('HLEN', values) >= tonumber(ARGV[6]) then return 'full' end
redis.call('HSET', values, id, ARGV[4])
redis.call('ZADD', index, now, name)
for _, key in ipairs({values, index}) do redis.call('PEXPIRE', key, kept) end
redis.call('HSET', job_key(id), 'score:' .. name, ARGV[4])
return 'scored'
