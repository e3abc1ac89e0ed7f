/** Eight of a kind in line around one that was picked: many machines, one image. */
export function Logo({ size = 20 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 16 16" aria-hidden="true">
      {[0, 1, 2, 3, 4, 5, 6, 7, 8].map((n) => (
        <rect
          key={n}
          x={1 + 5 * (n % 3)}
          y={1 + 5 * Math.floor(n / 3)}
          width={4}
          height={4}
          rx={1}
          fill={n === 4 ? "#f2a20d" : "var(--mantine-primary-color-5)"}
        />
      ))}
    </svg>
  );
}
