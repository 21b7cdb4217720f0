-- Has nobody granted the lock for a time, or ends that. The present hold goes on.
-- KEYS: 10 operator, which is never written: a user of Redis who may not touch it cannot freeze a
-- lock
-- ARGV: 7 freeze or thaw  8 scope: own, branch, repo  9 until when (µs), or 0: for 10, ms  11 JSON 
-- 12 record of who does it  13 why  14 since when (µs), or 0: now  15 the lock's own key is a mark
-- for other locks, and no lock
-- Returns {whether it was frozen, until when, since when, who holds the lock now, its freeze now}.
FREEING = true
local DO, SCOPE, UNTIL, JSON = ARGV[7], ARGV[8], tonumber(ARGV[9]), ARGV[11]
local MARK = ARGV[15] == '1'
redis.call('PEXPIRE', META, DAY) -- a full server allows this, and after it the rest
local before = parse_until(redis.call('HGET', FROZEN, SCOPE))
before = before and before > NOW and before or 0

if DO == 'thaw' then
	redis.call('HDEL', FROZEN, SCOPE)
	if before > 0 then event('thawed', ARGV[12], 'reason', ARGV[13]) end
	if MARK then return {before > 0 and 1 or 0, before, 0, holder(), told_freeze()} end
	local us, text = freeze()
	if us then ice(us, text) else melt() end
	return {before > 0 and 1 or 0, before, 0, holder(), told_freeze()}
end

if UNTIL == 0 then UNTIL = NOW + ARGV[10] * 1000 end
local since = tonumber(ARGV[14])
if since == 0 then since = NOW end
if UNTIL <= NOW then return {before > 0 and 1 or 0, 0, since, holder(), told_freeze()} end
note_freeze(SCOPE, UNTIL, until_text(since, JSON))
event('frozen', ARGV[12], 'reason', ARGV[13], 'for_ms', ms(UNTIL - NOW))
if not MARK then ice(freeze()) end
return {before > 0 and 1 or 0, UNTIL, since, holder(), told_freeze()}
