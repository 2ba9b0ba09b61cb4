// Draws the panels of a dashboard with Grafana's own components, from what Prometheus responded.
// What the dashboard does not set is as in Grafana's panels of that type.

import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { createRoot } from 'react-dom/client';
import {
  createTheme,
  dateTime,
  FieldType,
  getDisplayProcessor,
  reduceField,
  ThemeContext,
  toDataFrame,
} from '@grafana/data';
import {
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueTextMode,
  GlobalStyles,
  PanelChrome,
  TimeSeries,
} from '@grafana/ui';

const { dashboard, panels, start, end, step } = window.drawing;
const theme = createTheme({ colors: { mode: 'dark' } });
const [from, to] = [dateTime(start * 1000), dateTime(end * 1000)];
const timeRange = { from, to, raw: { from, to } };

// Grafana's grid: 24 columns, rows of 30 pixels, 8 pixels between them.
const MARGIN = 16;
const GAP = 8;
const ROW = 30;
const COLUMN = (window.innerWidth - 2 * MARGIN + GAP) / 24;

const DEFAULTS = {
  stat: {
    color: { mode: 'thresholds' },
    thresholds: { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] },
  },
  timeseries: {
    color: { mode: 'palette-classic' },
    custom: { axisGridShow: true, lineWidth: 1 },
  },
};

function applyOverrides(config, name, overrides) {
  const ours = overrides.filter(({ matcher }) => matcher.id === 'byName' && matcher.options === name);
  const result = { ...config, custom: { ...config.custom } };
  for (const { id, value } of ours.flatMap((override) => override.properties)) {
    const [, custom, key] = id.match(/^(custom\.)?(.+)$/);
    (custom ? result.custom : result)[key] = value;
  }
  return result;
}

function prepareFrames(panel, responses) {
  const { defaults, overrides } = panel.fieldConfig;
  const ours = DEFAULTS[panel.type];
  const config = { ...ours, ...defaults, custom: { ...ours.custom, ...defaults.custom } };
  const series = panel.targets.flatMap((target, index) =>
    responses[index].map(({ labels, points }) => ({
      name: target.legendFormat.replace(/{{(\w+)}}/g, (_, label) => labels[label]),
      refId: target.refId,
      points,
    }))
  );
  return series.map(({ name, refId, points }, seriesIndex) => {
    const values = points.map(([, value]) => value);
    const frame = toDataFrame({
      refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000), config: { interval: step * 1000 } },
        {
          name: 'Value',
          type: FieldType.number,
          values,
          config: applyOverrides({ ...config, displayName: name }, name, overrides),
        },
      ],
    });
    for (const field of frame.fields) {
      field.display = getDisplayProcessor({ field, theme });
    }
    frame.fields[1].state = { seriesIndex, range: { min: config.min, max: Math.max(...values) } };
    return frame;
  });
}

function Stat({ panel, frames, width, height }) {
  const [x, y] = frames[0].fields;
  const [calc] = panel.options.reduceOptions.calcs;
  return (
    <BigValue
      colorMode={BigValueColorMode[panel.options.colorMode === 'none' ? 'None' : 'Value']}
      graphMode={BigValueGraphMode.Area}
      textMode={BigValueTextMode.Auto}
      value={y.display(reduceField({ field: y, reducers: [calc] })[calc])}
      sparkline={{ x, y, timeRange }}
      theme={theme}
      width={width}
      height={height}
    />
  );
}

function Panel({ panel, responses }) {
  const { x, y, w, h } = panel.gridPos;
  const frames = prepareFrames(panel, responses);
  const place = { left: MARGIN + x * COLUMN, top: y * (ROW + GAP), position: 'absolute' };
  const size = { width: w * COLUMN - GAP, height: h * (ROW + GAP) - GAP };
  return (
    <div style={place} className="panel">
      <PanelChrome title={panel.title} description={panel.description} padding={panel.type === 'stat' ? 'none' : 'md'} {...size}>
        {(width, height) =>
          frames.length === 0 ? (
            'No data'
          ) : panel.type === 'stat' ? (
            <Stat {...{ panel, frames, width, height }} />
          ) : (
            <TimeSeries
              legend={{ showLegend: true, ...panel.options.legend }}
              timeZone="utc"
              {...{ frames, timeRange, width, height }}
            />
          )
        }
      </PanelChrome>
    </div>
  );
}

function Dashboard() {
  const rows = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <h1 style={{ fontSize: 18, margin: 0, padding: `12px ${MARGIN}px` }}>{dashboard.title}</h1>
      <div style={{ position: 'relative', height: rows * (ROW + GAP) + GAP }}>
        {dashboard.panels.map((panel, index) => (
          <Panel key={panel.id} panel={panel} responses={panels[index]} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
}

// Text is measured before it is drawn, so its font must be there.
Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`))).then(() =>
  createRoot(document.getElementById('root')).render(<Dashboard />)
);
