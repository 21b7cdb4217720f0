-- Notes an event that only the holder knows of.
-- ARGV: 7 type  8 record  9 reason
event(ARGV[7], ARGV[8], 'reason', ARGV[9])
return 1
