-- Erase an ended job's inputs, outputs and attempts; a small tombstone remains. Answers the job's status or 'missing'.
-- ARGV: id.
local id = ARGV[1]
local f = fields(id)
if not f then return 'missing' end
if not TERMINAL[f.status] then return f.status end
redis.call('UNLINK', job_key(id) .. ':request', job_key(id) .. ':attempts', job_key(id) .. ':journal', outcome_key(id))
redis.call('PEXPIRE', job_key(id), f.tombstone)
redis.call('ZREM', 'dj:jobs', id)
return 'erased'
