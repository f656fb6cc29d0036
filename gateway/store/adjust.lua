-- Correct taken claims. KEYS: counters. ARGV per key: difference (a signed integer), lease ('' = a plain counter).
-- A counter that is gone stays gone: its window is over. INCRBY is exact over 64 bits; only the sign is looked at here.
for index, key in ipairs(KEYS) do
  local difference, lease = ARGV[2 * index - 1], ARGV[2 * index]
  if lease ~= '' then
    redis.call('ZREM', key, lease)
  elseif redis.call('EXISTS', key) == 1 and redis.call('INCRBY', key, difference) < 0 then
    redis.call('SET', key, '0', 'KEEPTTL')
  end
end
return 1
