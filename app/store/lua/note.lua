-- Keep the text behind each key, once. KEYS[1] the texts; ARGV: key, text, key, text, ...
for i = 1, #ARGV, 2 do
  redis.call("HSETNX", KEYS[1], ARGV[i], ARGV[i + 1])
end
return #ARGV / 2
