"""How fast bladeroot is, next to other tools: `local` on one machine, `room` over a shaped network."""
