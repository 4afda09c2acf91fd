-- A probe's job ended or stopped without settling the circuit: let another probe. ARGV: model, job.
local key = 'dj:circuit:' .. ARGV[1] .. ':probe'
if redis.call('GET', key) == ARGV[2] then redis.call('DEL', key) end
return 1
